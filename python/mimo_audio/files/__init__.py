"""Files: sound of any format, tokens, lists of recordings, output that is whole or not there at all."""
