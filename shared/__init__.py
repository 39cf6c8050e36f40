"""Contracts, ports, settings, errors and the cloud-neutral logic every other package builds on."""
