"""One run looked at: what came out, where it went wrong, and single samples with the clip as the encoder saw it."""
