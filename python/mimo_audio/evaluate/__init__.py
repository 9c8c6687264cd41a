"""How good a reconstruction is: objective metrics, the table that reports them, the picture of both mels."""
