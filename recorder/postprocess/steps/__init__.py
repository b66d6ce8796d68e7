"""The steps of post-processing, a module each; `registry` has them all."""
