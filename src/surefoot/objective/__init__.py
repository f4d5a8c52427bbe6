"""What is minimised: the target, the noise levels, the loss."""
