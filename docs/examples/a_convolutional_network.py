"""Check the book's convolutional network, all layers and all entries, and train it for a moment."""

import fastnet

x, t = fastnet.datasets.make_digits(300, seed=0)
x = x.reshape(-1, 1, 28, 28)
net = fastnet.SimpleConvNet(
    input_dim=(1, 28, 28),
    conv_param={"filter_num": 4, "filter_size": 5, "pad": 0, "stride": 1},
    hidden_size=20,
    output_size=10,
    seed=0,
)
net.params["b1"] += 0.01  # With 0, blank patches of an image stand exactly at the kink of the ReLU.

# The numerical gradient of every parameter, through convolution and pooling, and backprop's.
numerical, backprop = net.numerical_gradient(x[:5], t[:5], h=1e-6), net.gradient(x[:5], t[:5])
for name, array in numerical.items():
    error = abs(array - backprop[name]).max() / abs(backprop[name]).max()
    print(name, array.shape, error < 1e-9)

trainer = fastnet.Trainer(net, x, t, optimizer=fastnet.optimizers.Adam(lr=0.005), batch_size=50, iterations=60)
print(trainer.fit()["train_accuracy"][-1] > 0.9)
# Prints:
# W1 (4, 1, 5, 5) True
# b1 (4,) True
# W2 (576, 20) True
# b2 (20,) True
# W3 (20, 10) True
# b3 (10,) True
# True
