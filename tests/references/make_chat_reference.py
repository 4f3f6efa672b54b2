"""Write chat_reference.json: what transformers makes of conversations by some templates.

Run by hand where transformers and tokenizers are installed; tests read the file alone:

    python tests/references/make_chat_reference.py
"""

import json
import pathlib
import tempfile

import tokenizers
import transformers  # pyright: ignore[reportMissingImports]
from tokenizers import models, pre_tokenizers

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<pad>"]
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "blanks": (
        "{%- if messages[0].role == 'system' %}\n"
        "    {{- bos_token + messages[0].content | trim }}\n"
        "    {%- set rest = messages[1:] %}\n"
        "{%- else %}\n"
        "    {{- bos_token }}\n"
        "    {%- set rest = messages %}\n"
        "{%- endif %}\n"
        "{% for m in rest %}\n"
        "    {% if m.role == 'user' %}\n"
        "  [INST] {{ m.content }} [/INST]\n"
        "    {% else %}\n"
        "{{ m.content + eos_token }}\n"
        "    {% endif %}\n"
        "{% endfor %}\n"
    ),
    "controls": (
        "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}"
        "{% if ns.n > 2 %}{% break %}{% endif %}{{ ns.n }}:{{ m | tojson }}\n{% endfor %}"
        "{% if tools is none %}no tools{% endif %}{% if documents is defined %}, documents{% endif %}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n{{ m.content }}{{ eos_token }}\n"
        "{% endgeneration %}{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    ),
}
TALKS = [
    [["user", "What is 1 + 1?"]],
    [["system", " Be brief. "], ["user", "a\n\nb <b> & 'c' \u00e9 {{ x }}"], ["assistant", "2"], ["user", "Sure?"]],
]


def main() -> None:
    words = tokenizers.Tokenizer(models.WordLevel({mark: i for i, mark in enumerate(MARKS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        words.save(f"{folder}/tokenizer.json")
        made = transformers.PreTrainedTokenizerFast(
            tokenizer_file=f"{folder}/tokenizer.json", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        )
        for name, template in TEMPLATES.items():
            for talk in TALKS:
                messages = [{"role": role, "content": content} for role, content in talk]
                text = made.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=True
                )
                rows.append({"name": name, "template": template, "messages": talk, "text": text})
    where = pathlib.Path(__file__).with_name("chat_reference.json")
    told = {"transformers": transformers.__version__, "marks": MARKS, "rows": rows}
    where.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
