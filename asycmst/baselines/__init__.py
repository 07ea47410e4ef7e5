"""Networks that the cross attention is measured against."""
