import contextlib
import io
import json
import pathlib

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies as st

from ttcjax.config import TokenizerConfig
from ttcjax.runtime.errors import UserError
from ttcjax.text import grading
from ttcjax.text import tokenizer as tokenizer_lib

MODELS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "sentencepiece"

CONFIG = TokenizerConfig(vocab_size=512)
WORDS = ["What is the sum of", "Find the product of", "Let x =", "so x =", "Then the remainder is", "Answer:"]


def template_texts(count: int = 400) -> list[str]:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        lines = [f"{WORDS[rng.integers(6)]} {rng.integers(100)} and {rng.integers(1000)}." for _ in range(4)]
        texts.append("\n".join(lines))
    return texts


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.train(template_texts(), CONFIG)


@pytest.fixture(scope="module")
def merged():
    return tokenizer_lib.train(template_texts(), TokenizerConfig(vocab_size=512, merge_words=True))


PIECES = st.sampled_from(["</s>", "<s>", "<pad>", "<unk>", "<0x41>", "\u2581", "\u2585", "\n", "\t", "  ", "42", "007"])
ANY_TEXT = st.lists(st.one_of(st.text(), PIECES), max_size=6).map("".join)


@hypothesis.given(ANY_TEXT)
@hypothesis.settings(deadline=None, max_examples=300)
def test_decode_inverts_encode_and_text_never_becomes_a_mark(tokenizer, merged, text):
    for each in (tokenizer, merged):
        ids = each.encode(text)
        assert each.decode(ids) == text
        assert not {each.pad_id, each.bos_id, each.eos_id, each.unk_id} & set(ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "   a    b   ",
        "\n\n\n",
        "\r\n\t",
        "\x00",
        "na\u00efve \U0001f600\u200d",
        "\ufffe",
        "x\u2581\u2581 y",
        "e\u0301",
    ],
)
def test_difficult_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


FRAGMENTS = [
    "</s>",
    "<s>",
    "<pad>",
    "<unk>",
    "<0x41>",
    "<0x",
    "\u2581",
    "\u2585",
    "\n",
    "\t",
    "\r",
    "\x00",
    "\x7f",
    "\x85",
]
FRAGMENTS += [
    " ",
    "  ",
    "a",
    "the ",
    "42",
    "007",
    "#### 5",
    "\U0001f600",
    "\u0301",
    "\u200d",
    "\ufeff",
    "\ufffe",
    "\u8a9e",
]
ODD_TEXT = st.lists(st.one_of(st.text(max_size=5), st.sampled_from(FRAGMENTS)), max_size=8).map("".join)
CORPORA = st.tuples(st.lists(ODD_TEXT, max_size=5), st.integers(1, 20)).map(lambda c: [*c[0] * c[1], "x"])


@hypothesis.given(CORPORA, st.lists(ODD_TEXT, max_size=8), st.booleans())
@hypothesis.settings(deadline=None, max_examples=60)
def test_decode_inverts_encode_whatever_the_tokenizer_was_trained_on(corpus, texts, merge_words):
    tokenizer = tokenizer_lib.train(corpus, TokenizerConfig(vocab_size=700, merge_words=merge_words))
    for text in [*texts, *corpus, *FRAGMENTS]:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text, "text is changed by encoding it"
        assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize(
    "corpus",
    [["####5\n" * 50], ["\u6570\u5b66\u306f\u697d\u3057\u3044\u3002"] * 20, ["a\tb"], ["ab" * 9999, "a b"], ["\u3000"]],
    ids=["marks", "japanese", "tabs", "one blank in 20,000", "ideographic spaces"],
)
@pytest.mark.parametrize("text", ["#### 5", " ", "  a  b ", "\u2581 \u2581", "a b\n c", " \u2585 "])
def test_blanks_come_back_where_training_hardly_saw_one(corpus, text):
    tokenizer = tokenizer_lib.train(corpus, CONFIG)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(" ")) == 1


def test_a_number_after_a_mark_is_read_back_by_a_tokenizer_that_knows_no_blank():
    tokenizer = tokenizer_lib.train(["####5"] * 50, CONFIG)
    assert grading.extract_hash_number(tokenizer.decode(tokenizer.encode("so\n#### 5"))) == "5"


@pytest.mark.parametrize(
    "changes", [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}, {"normalization_rule_name": "nfkc"}]
)
def test_a_model_that_changes_text_is_refused(changes):
    model = io.BytesIO()
    settings = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(template_texts()),
        model_writer=model,
        vocab_size=400,
        byte_fallback=True,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
        **(settings | changes),
    )
    with pytest.raises(UserError, match="changes text before it encodes it"):
        tokenizer_lib.SentencePieceTokenizer(model.getvalue())


def test_a_model_may_have_no_padding_and_a_text_as_id_0():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(template_texts()),
        model_writer=model,
        vocab_size=400,
        byte_fallback=True,
        pad_id=-1,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    tokenizer = tokenizer_lib.SentencePieceTokenizer(model.getvalue())
    assert tokenizer.pad_id is None
    assert tokenizer.decode(tokenizer.encode("so x = 7\n")) == "so x = 7\n"
    assert tokenizer.decode([0]) == "\ufffd", "id 0 is no padding here, and shows"


@pytest.mark.skipif(not MODELS.exists(), reason="needs ../shared/data/sentencepiece beside the repository")
def test_real_models_keep_text_or_are_refused():
    paths = sorted(MODELS.iterdir())
    assert paths
    for path in paths:
        try:
            tokenizer = tokenizer_lib.load(path)
        except UserError:
            continue
        for text in FRAGMENTS:
            assert tokenizer.decode(tokenizer.encode(text)) == text, path


def test_lone_surrogates_are_replaced_rather_than_fatal(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_numbers_below_the_limit_are_one_piece_and_longer_ones_split_left_to_right(tokenizer):
    def pieces(text):
        return [tokenizer.decode([i]) for i in tokenizer.encode(text)]

    for number in range(100):
        assert pieces(str(number)) == [str(number)]
    assert pieces("142") == ["14", "2"]
    assert pieces("12345") == ["12", "34", "5"]
    assert pieces("007") == ["0", "0", "7"], "leading zeros are no number piece"
    assert pieces("9" * 5) == ["99", "99", "9"]


def test_digits_alone_with_ten_number_pieces():
    tokenizer = tokenizer_lib.train(template_texts(), TokenizerConfig(vocab_size=400, number_pieces=10))
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1428")] == ["1", "4", "2", "8"]


def test_digits_never_hide_inside_learned_pieces(tokenizer, merged):
    for each in (tokenizer, merged):
        for i in range(each.vocab_size):
            text = each.decode([i])
            assert text.isdigit() or not any(c.isdigit() for c in text), f"piece {text!r} mixes digits and letters"


def test_newline_is_its_own_piece(tokenizer):
    newlines = {i for i in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([i])}
    assert {tokenizer.decode([i]) for i in newlines} == {"\n"}
    assert sum(i in newlines for i in tokenizer.encode("so x = 3\nAnswer: 3\n")) == 2


def test_pieces_are_the_bytes_that_texts_are_joined_from(tokenizer):
    text = "so x = \U0001f600\nAnswer: 3\u2581"
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    assert b"".join(tokenizer.pieces[i] for i in ids) == text.encode()
    assert len(tokenizer.pieces) == tokenizer.vocab_size


def test_the_end_mark_is_the_one_token_that_ends_a_solution(tokenizer):
    assert tokenizer.stop_ids == (tokenizer.eos_id,)


def test_merged_words_shorten_template_text(tokenizer, merged):
    text = "What is the sum of 4 and 5."
    assert len(merged.encode(text)) <= len(tokenizer.encode(text)) - 2
    assert any(" " in merged.decode([i]).strip() for i in range(merged.vocab_size)), "some piece spans two words"


def test_training_is_deterministic_and_the_fingerprint_tells_models_apart(tokenizer, merged):
    again = tokenizer_lib.train(iter(template_texts()), CONFIG)
    assert again.fingerprint == tokenizer.fingerprint != merged.fingerprint
    assert len(again.fingerprint) == 16


def test_only_the_first_train_lines_count(tokenizer):
    config = TokenizerConfig(vocab_size=512, train_lines=400)
    assert tokenizer_lib.train([*template_texts(), "zzz qqq zzz"], config).fingerprint == tokenizer.fingerprint


def test_small_text_yields_a_smaller_vocabulary():
    tokenizer = tokenizer_lib.train(["ab ab"], TokenizerConfig(vocab_size=4000))
    assert 361 < tokenizer.vocab_size < 4000
    assert tokenizer.decode(tokenizer.encode("xyz")) == "xyz"


def test_ids_are_those_of_the_convention(tokenizer):
    assert tokenizer.pad_id == 0
    assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id}) == 4
    assert max(tokenizer.encode("any \u4e16\u754c")) < tokenizer.vocab_size


def test_decode_drops_marks_and_survives_whatever_a_model_samples(tokenizer):
    ids = tokenizer.encode("so x = 7")
    marked = [tokenizer.bos_id, *ids, tokenizer.eos_id, 0, 0]
    assert tokenizer.decode(marked) == "so x = 7"
    assert tokenizer.decode(np.array(marked, np.int32)) == "so x = 7"
    assert tokenizer.decode_batch(np.array([marked, marked])) == ["so x = 7"] * 2
    assert tokenizer.decode([*ids, tokenizer.vocab_size + 5, tokenizer.unk_id]) == "so x = 7\ufffd\ufffd"
    half_a_character = tokenizer.encode("\U0001f600")[:2]
    assert tokenizer.decode(half_a_character) == "\ufffd"


def test_batches_equal_single_calls(tokenizer):
    texts = [*template_texts(5), "", "a \u2581 b"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_save_and_load_keep_ids_and_fingerprint(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.model")
    loaded = tokenizer_lib.load(tmp_path / "tokenizer.model")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("Find 12 and 345") == tokenizer.encode("Find 12 and 345")


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"junk" * 50, lambda b: b[:-3]]
)
def test_damaged_file_is_one_clear_line(tokenizer, tmp_path, damage):
    path = tmp_path / "tokenizer.model"
    tokenizer.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        UserError, match=r"not a SentencePiece model.*data stage writes it anew once .* moved"
    ) as caught:
        tokenizer_lib.load(path)
    assert str(path) in str(caught.value)
    assert "delete" not in str(caught.value), "the file may be the user's own"
    assert "\n" not in str(caught.value)


@hypothesis.given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
@hypothesis.settings(deadline=None, max_examples=100)
def test_a_flipped_bit_is_one_clear_line_or_another_tokenizer(tokenizer, place, bit):
    damaged = bytearray(tokenizer._model)
    damaged[place % len(damaged)] ^= 1 << bit
    with contextlib.suppress(UserError):
        other = tokenizer_lib.SentencePieceTokenizer(bytes(damaged))
        assert other.fingerprint != tokenizer.fingerprint


TOKENIZER_JSON = b'{"version": "1.0", "added_tokens": [], "model": {"type": "BPE"}}'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", TOKENIZER_JSON, "a Hugging Face tokenizer.json"),
        ("tokenizer.json", b"\xef\xbb\xbf \n" + TOKENIZER_JSON, "a Hugging Face tokenizer.json"),
        ("tokenizer.json", TOKENIZER_JSON[:-9], "JSON, cut off"),
        ("tokenizer_config.json", b'{"tokenizer_class": "LlamaTokenizer"}', "tokenizer_config.json"),
        ("vocab.json", b'{"a": 0}', "JSON"),
        ("empty.model", b"", "the file is empty"),
        ("zeros.model", bytes(4096), "zeros alone"),
        ("pointer.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("page.model", b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
        ("cl100k.tiktoken", b"IQ== 0\nIg== 1\n", "a tiktoken vocabulary"),
        ("merges.txt", b"#version: 0.2\na b\n", "a list of merges"),
        ("a.gz", b"\x1f\x8b\x08\x00", "gzip"),
        ("weights.bin", b"PK\x03\x04abc", "zip archive"),
        ("readme.txt", b"hello\n", "text"),
        ("blob", bytes(range(200, 256)), "something else"),
    ],
)
def test_a_file_that_is_no_sentencepiece_model_is_named_for_what_it_is(tmp_path, name, content, words):
    """It may be the user's own: nobody is told to delete it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a SentencePiece model") as caught:
        tokenizer_lib.load(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "\n" not in message
    assert "delete" not in message
    assert "data stage" not in message


def test_missing_file_names_the_stage_to_run(tmp_path):
    with pytest.raises(UserError, match="run the data stage"):
        tokenizer_lib.load(tmp_path / "nowhere.model")


def test_vocabulary_too_small_or_no_text_names_the_fix():
    with pytest.raises(UserError, match=r"raise tokenizer\.vocab_size"):
        tokenizer_lib.train(template_texts(), TokenizerConfig(vocab_size=350))
    with pytest.raises(UserError, match="training split"):
        tokenizer_lib.train([], CONFIG)
    for text in ("\r\r", "a" * 70_000):
        with pytest.raises(UserError, match="no line of the training text can be used"):
            tokenizer_lib.train([text], CONFIG)


def test_training_on_json_like_text_with_odd_characters():
    texts = [json.dumps({"q": "caf\u00e9 \u2585 \t \x00"}, ensure_ascii=False)] * 20
    tokenizer = tokenizer_lib.train(texts, CONFIG)
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
