"""The stages of an experiment, run safely: alone, as a sweep in parts, or once a seed as a study."""
