"""From files to batches: decoding, the order of examples, tf.data."""
