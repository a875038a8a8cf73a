// Command linecount tells how many lines and bytes the file /inputs/text has, and its SHA-256, in /outputs/summary.json.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type summary struct {
	Lines  int    `json:"lines"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	At     string `json:"at"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "linecount:", err)
		os.Exit(1)
	}
}

func run() error {
	data, err := os.ReadFile("/inputs/text")
	if err != nil {
		return err
	}
	out, err := json.Marshal(summary{
		Lines: bytes.Count(data, []byte("\n")), Bytes: len(data), SHA256: fmt.Sprintf("%x", sha256.Sum256(data)),
		At: time.Now().UTC().Format(time.DateOnly),
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d bytes read\n", len(data))
	return os.WriteFile("/outputs/summary.json", append(out, '\n'), 0o644)
}
