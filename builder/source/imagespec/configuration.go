package imagespec

import (
	"encoding/json"
	"errors"
	"fmt"

	"arch.network/attest/digest"
)

// Configuration is what is used of an image's configuration: image-spec config.md.
type Configuration struct {
	OS           string    `json:"os"`
	Architecture string    `json:"architecture"`
	Config       Execution `json:"config"`
	RootFS       struct {
		Type    string          `json:"type"`
		DiffIDs []digest.SHA256 `json:"diff_ids"` // of each layer: the SHA-256 of its uncompressed tar
	} `json:"rootfs"`
}

// Execution is how an image wants to be run.
type Execution struct {
	User       string              `json:"User"`
	Env        []string            `json:"Env"` // "NAME=VALUE"
	Entrypoint []string            `json:"Entrypoint"`
	Cmd        []string            `json:"Cmd"`
	WorkingDir string              `json:"WorkingDir"`
	Volumes    map[string]struct{} `json:"Volumes"` // paths that the image wants to write to
}

// ParseConfiguration reads the configuration of an image whose manifest lists that many layers.
func ParseConfiguration(data []byte, layers int) (*Configuration, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxDocument)
	}
	var c Configuration
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	if err := plainConfiguration(data); err != nil {
		return nil, err
	}
	if c.RootFS.Type != "layers" || len(c.RootFS.DiffIDs) != layers {
		return nil, fmt.Errorf("it lists %d layers, its manifest %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if d.IsZero() {
			return nil, errors.New("the digest of a layer is missing")
		}
	}
	return &c, nil
}
