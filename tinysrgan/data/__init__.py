"""Everything about pixels before the nets: image files, QR codes, augmentation, synthetic codes, batches."""
