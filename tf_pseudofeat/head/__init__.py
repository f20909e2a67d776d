"""Step 5: retrains the head, or adjusts its logits without training."""
