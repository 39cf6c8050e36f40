"""The embedded Azure: Azurite, Azure ML that trains and serves, and the Functions host."""
