"""Modules trained on features, and what trains them: probe bank, closed-form probes, optimizer, PEFT, MixUp."""
