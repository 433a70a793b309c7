"""Figures of the finished network, layer by layer: `cost` (time, energy, memory), `weights` (histograms), `fidelity`
(signal to quantisation noise), and `warnings`, what they mean for whoever deploys it.
"""
