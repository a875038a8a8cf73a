package executor_test

const childArgument = "arch-node-child"

func child(args []string) int { return 2 }
