module arch.network/examples/hello

go 1.26
