package derivation

import (
	"fmt"

	"arch.network/builder/nix/drv"
)

// SystemError says that a derivation is built on another kind of machine than a Build can name.
type SystemError struct{ Drv, System string }

func (e *SystemError) Error() string {
	return fmt.Sprintf("derivation %s is built on %q, which is not x86_64-linux or aarch64-linux", e.Drv, e.System)
}

// platform returns the platform of a Build for a derivation. What is fetched by a builtin builder is built anywhere; here is as good as there.
func platform(path string, d *drv.Derivation, here string) (string, error) {
	switch d.System {
	case "x86_64-linux":
		return "linux/amd64", nil
	case "aarch64-linux":
		return "linux/arm64", nil
	case "builtin":
		return here, nil
	}
	return "", &SystemError{path, d.System}
}
