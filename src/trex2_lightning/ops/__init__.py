"""Functions on tensors that know neither models nor data, and what goes over ranks."""
