// Command collatz keeps goroutines, maps, the heap and a file busy.
package main

import (
	"fmt"
	"os"
)

func steps(n uint64) (steps uint64) {
	for ; n != 1; steps++ {
		if n%2 == 0 {
			n /= 2
		} else {
			n = 3*n + 1
		}
	}
	return steps
}

func main() {
	out, err := os.Create("/outputs/collatz")
	if err != nil {
		panic(err)
	}
	sums, ratio := map[uint64]uint64{}, 0.0
	done := make(chan uint64)
	for i := uint64(1); i <= 30_000; i++ {
		go func() { done <- steps(i) }()
		n := <-done
		sums[n%16]++
		ratio += float64(n) / float64(i)
		if i%5_000 == 0 {
			fmt.Fprintln(out, i, ratio)
			fmt.Println(i)
		}
	}
	for i := range uint64(16) {
		fmt.Println(i, sums[i])
	}
	if err := out.Close(); err != nil {
		panic(err)
	}
}
