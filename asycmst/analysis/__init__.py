"""What a trained model says and why: metrics, maps, figures, predictions."""
