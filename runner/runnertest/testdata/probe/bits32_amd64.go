package main

import "fmt"

// int80 makes the system call nr of the 32-bit interface.
func int80(nr uint32) int32

// call32Bit asks for the process id by the 32-bit interface, which filters of 64-bit calls do not see.
func call32Bit([]string) { fmt.Println("32-bit call:", int80(20)) }
