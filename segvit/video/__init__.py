"""Videos in and out: decode, encode, and read an address."""
