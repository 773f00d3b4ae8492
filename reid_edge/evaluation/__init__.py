"""Quality of features, of any engine: ranking, verification and open-set identification; quality of attributes."""
