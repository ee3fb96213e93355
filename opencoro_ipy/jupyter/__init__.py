"""ipykernel and IPython integration: needs ipykernel; nothing below this folder knows it."""
