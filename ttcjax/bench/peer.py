"""Hugging Face transformers on PyTorch, the other side of a benchmark; run as a process that takes orders.

`plain` is what a user types first, `careful` what an expert makes of it with the same library: the prompt read
once, caches kept, nothing recomputed. JAX is never imported here.
"""

# PyTorch is no dependency of the project, so its types are not there to be checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import os
import time
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

from ttcjax.bench import protocol


class Peer:
    """The tasks; each returns its seconds."""

    def load(self, folder: str, dtype: str, threads: int, value: list[float] | None = None) -> dict[str, Any]:
        begin = time.perf_counter()
        torch.set_num_threads(threads)
        self.device: Any = "cuda" if torch.cuda.is_available() else "cpu"
        # Attention as the library would choose it: its fused one.
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model: Any = model.to(self.device).eval()
        # The verifier has the policy's weights: it needs no copy of them to be measured.
        self.value: Any = None if value is None else torch.tensor(value, device=self.device)
        version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        return {"seconds": time.perf_counter() - begin, "version": version, "device": self.device}

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _timed(self, run: Any) -> dict[str, Any]:
        self._wait()
        begin = time.perf_counter()
        with torch.inference_mode():
            result = run()
        self._wait()
        return {"seconds": time.perf_counter() - begin, **result}

    def plain(self, prompt: list[int], n: int, tokens: int, seed: int) -> dict[str, Any]:
        """`generate(num_return_sequences=n)`, plain sampling at temperature 1, stop tokens off."""
        torch.manual_seed(seed)
        ids = torch.tensor([prompt], device=self.device)
        return self._timed(lambda: {"tokens": n * (self._generate(ids, tokens, n).shape[1] - len(prompt))})

    def _generate(self, ids: torch.Tensor, tokens: int, n: int = 1) -> torch.Tensor:
        return self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_return_sequences=n,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
        )

    def _decode(self, logits: torch.Tensor, cache: DynamicCache, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample `tokens` tokens a row; all of them are read but the last."""
        drawn = []
        for i in range(tokens):
            token = torch.multinomial(torch.softmax(logits.float(), dim=-1), 1)
            drawn.append(token)
            if i < tokens - 1:
                logits = self.model(token, past_key_values=cache, use_cache=True).logits[:, -1]
        return torch.cat(drawn, dim=1), logits

    def careful(self, prompt: list[int], n: int, tokens: int, seed: int) -> dict[str, Any]:
        """The prompt read once, its cache expanded to n rows, a loop without the overhead of `generate`."""
        torch.manual_seed(seed)
        ids = torch.tensor([prompt], device=self.device)

        def run() -> dict[str, Any]:
            cache = DynamicCache()
            out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(n)
            drawn, _ = self._decode(out.logits[:, -1].expand(n, -1), cache, tokens)
            return {"tokens": drawn.numel()}

        return self._timed(run)

    def logprobs(self, prompts: list[list[int]]) -> dict[str, Any]:
        found = []
        with torch.inference_mode():
            for prompt in prompts:
                ids = torch.tensor([prompt], device=self.device)
                scores = torch.log_softmax(self.model(ids).logits[0].float(), dim=-1)
                found.append(scores[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist())
        return {"logprobs": found}

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(hidden[:, -1].float() @ self.value)

    def search_plain(
        self, prompts: list[list[int]], n: int, width: int, rounds: int, step: int, seed: int
    ) -> dict[str, Any]:
        """Beam search one question at a time, the policy and the verifier on whole prefixes every round."""
        torch.manual_seed(seed)

        def run() -> dict[str, Any]:
            verifier_tokens = 0
            for prompt in prompts:
                rows = torch.tensor([prompt], device=self.device).repeat(n, 1)
                for _ in range(rounds):
                    rows = self._generate(rows, step)
                    scores = self._scores(self.model.model(rows).last_hidden_state)
                    verifier_tokens += rows.numel()
                    best = scores.topk(n // width).indices
                    rows = rows[best.repeat_interleave(width)]
            return {"tokens": len(prompts) * n * rounds * step, "verifier_tokens": verifier_tokens}

        return self._timed(run)

    def search_careful(
        self, prompts: list[list[int]], n: int, width: int, rounds: int, step: int, seed: int
    ) -> dict[str, Any]:
        """Beam search on all questions at once; policy and verifier keep their caches and read new tokens only."""
        torch.manual_seed(seed)
        ids = torch.tensor(prompts, device=self.device)
        count = len(prompts)

        def run() -> dict[str, Any]:
            policy: Any = DynamicCache()
            verifier: Any = DynamicCache()
            out = self.model(ids, past_key_values=policy, use_cache=True, logits_to_keep=1)
            self.model.model(ids, past_key_values=verifier, use_cache=True)
            policy.batch_repeat_interleave(n)
            verifier.batch_repeat_interleave(n)
            logits = out.logits[:, -1].repeat_interleave(n, dim=0)
            verifier_tokens = ids.numel()
            for _ in range(rounds):
                drawn, _ = self._decode(logits, policy, step)
                hidden = self.model.model(drawn, past_key_values=verifier, use_cache=True).last_hidden_state
                verifier_tokens += drawn.numel()
                best = self._scores(hidden).view(count, n).topk(n // width, dim=1).indices
                parents = best + torch.arange(count, device=self.device)[:, None] * n
                parents = parents.repeat_interleave(width, dim=1).flatten()
                policy.reorder_cache(parents)
                verifier.reorder_cache(parents)
                logits = self.model(drawn[parents, -1:], past_key_values=policy, use_cache=True).logits[:, -1]
            return {"tokens": count * n * rounds * step, "verifier_tokens": verifier_tokens}

        return self._timed(run)

    def verify(self, prompt: list[int], n: int, rounds: int, step: int, seed: int) -> dict[str, Any]:
        """Score `rounds` steps of n rows, reading the whole prefix at every one of them."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(4, self.model.config.vocab_size, (n, rounds * step), generator=generator)
        whole = torch.cat([torch.tensor([prompt]).repeat(n, 1), rows], dim=1).to(self.device)

        def run() -> dict[str, Any]:
            read = 0
            for t in range(rounds):
                seen = whole[:, : len(prompt) + (t + 1) * step]
                self._scores(self.model.model(seen).last_hidden_state)
                read += seen.numel()
            return {"tokens": n * rounds * step, "verifier_tokens": read}

        return self._timed(run)


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.logging.set_verbosity_error()
    peer = Peer()
    names = ("load", "plain", "careful", "logprobs", "search_plain", "search_careful", "verify")
    protocol.serve({name: getattr(peer, name) for name in names})


if __name__ == "__main__":
    main()
