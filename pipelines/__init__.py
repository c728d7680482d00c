"""All that knows images, tensors and models; imports no Prefect."""
