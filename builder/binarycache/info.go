package binarycache

import (
	"bytes"
	"fmt"
	"path"
	"strings"
)

// MaxInfo bounds a nix-cache-info, in bytes.
const MaxInfo = 16 << 10

// Info is what a cache says of itself, the file nix-cache-info (Nix: binary cache protocol).
type Info struct {
	StoreDir      string // such as "/nix/store"
	WantMassQuery bool   // asking for many paths that it may not have is welcome
	Priority      int    // the lower, the earlier it is asked; Nix's default is 50
}

// ParseInfo reads a nix-cache-info. StoreDir must be there; fields that are not known are skipped.
func ParseInfo(data []byte) (Info, error) {
	info := Info{Priority: 50}
	if len(data) > MaxInfo {
		return Info{}, fmt.Errorf("read nix-cache-info: it has %d bytes, more than %d", len(data), MaxInfo)
	}
	seen := map[string]bool{}
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ": ")
		if !ok {
			return Info{}, fmt.Errorf("read nix-cache-info: line %.100q is not KEY: VALUE", line)
		}
		if seen[key] {
			return Info{}, fmt.Errorf("read nix-cache-info: %.100q is there twice", key)
		}
		seen[key] = true
		switch key {
		case "StoreDir":
			info.StoreDir = value
		case "WantMassQuery":
			info.WantMassQuery = value == "1"
		case "Priority":
			n, err := parseSize(value, 1<<30)
			if err != nil {
				return Info{}, fmt.Errorf("read nix-cache-info: Priority %.50q is no number", value)
			}
			info.Priority = int(n)
		}
	}
	if !path.IsAbs(info.StoreDir) || path.Clean(info.StoreDir) != info.StoreDir || len(info.StoreDir) > maxText {
		return Info{}, fmt.Errorf("read nix-cache-info: StoreDir %.100q is no directory", info.StoreDir)
	}
	return info, nil
}

// Encode writes a nix-cache-info.
func (i Info) Encode() []byte {
	mass := 0
	if i.WantMassQuery {
		mass = 1
	}
	return fmt.Appendf(nil, "StoreDir: %s\nWantMassQuery: %d\nPriority: %d\n", i.StoreDir, mass, i.Priority)
}
