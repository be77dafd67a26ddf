"""What a gateway costs: loramux beside other gateways, all before the same engine that answers at once."""
