"""Stages that sample or score: the bank, the searches, the revision model's chains."""
