"""The clients that workloads speak through: one protocol, one file per engine."""
