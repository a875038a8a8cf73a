// Command gowasi is a Go program for wasip1 that says what it sees and writes a file.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	fmt.Println(os.Args)
	fmt.Println(strings.Join(os.Environ(), " "))
	time.Sleep(time.Second)
	fmt.Println(time.Now().UTC().Format(time.DateOnly))
	entries, err := os.ReadDir("/inputs")
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(names(entries))
	text, err := os.ReadFile("/inputs/text")
	fmt.Println(len(text), err)
	if err := os.MkdirAll("/outputs/a", 0o755); err != nil {
		fmt.Println(err)
	}
	if err := os.WriteFile("/outputs/a/b", []byte("text"), 0o644); err != nil {
		fmt.Println(err)
	}
}

func names(entries []os.DirEntry) []string {
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
