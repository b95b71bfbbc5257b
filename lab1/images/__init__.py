"""Data sets of images: where they come from, splits and batches, augmentation, drawn shapes."""
