"""Decoder-only transformers as pure functions over parameter pytrees.

Local names carry the axes of arrays as a suffix (`x_BTD`). The letters mean, everywhere in this project:

    Q  questions               L  layers                 H  query heads
    N  samples of a question   D  model width            K  key/value heads
    B  rows, Q * N             F  width of the MLP       G  H / K, query heads a key/value head
    T  tokens of a sequence    V  vocabulary             E  head size
    C  tokens of a chunk       P  shared-prefix slots    S  own (suffix) cache slots
"""
