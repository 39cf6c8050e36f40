"""Azure behind the ports, on Azure's own SDKs. They are imported at the first call, not before."""
