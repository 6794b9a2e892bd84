"""What an installed wheel must do, in an environment without a compiler: the main job on the compiled kernels."""

import fastnet

info = fastnet.build_info()
assert info["backend"] == "cpp", info
x, t = fastnet.datasets.make_digits(100, seed=0)
net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
check = fastnet.check_gradient(net, net.gradient, (x, t))
assert check.passed, check
trainer = fastnet.Trainer(
    net, x, t, optimizer=fastnet.optimizers.Adam(), batch_size=50, iterations=20, gradient="numerical"
)
losses = trainer.fit().losses
assert losses[-1] < losses[0], losses
print(f"{check.verdict}; {info['isa']}, {info['compiler']}")
