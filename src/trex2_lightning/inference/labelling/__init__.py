"""Labels for many pictures: what there is to label, what is found, a journal of it, and the files made of that."""
