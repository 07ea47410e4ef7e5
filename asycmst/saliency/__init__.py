"""The second model: diagnosis of single B-mode images, guided by a saliency map."""
