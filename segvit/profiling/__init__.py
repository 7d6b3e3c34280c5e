"""Measure and predict cost: multiply-adds, parameters, memory, time."""
