package main

import (
	"path/filepath"

	"arch.network/agent/control/client"
)

// places are where a node keeps and finds things unless flags say otherwise.
type places struct{ socket, state, policy, trust, config string }

// defaultPlaces returns those of a service for root, and for whom a service manager gave a directory for state (systemd.exec(5), STATE_DIRECTORY;
// it sets HOME, too, which a service may not enter); its unit names what is different. Who starts the program by hand as anybody else gets their own, below the XDG base directories, with the trust root that `arch` uses, too: so it starts, with nothing set up.
func defaultPlaces(uid int, getenv func(string) string) places {
	system := places{
		socket: client.DefaultSocket, state: "/var/lib/arch-node-agent", policy: "/etc/arch/policy.yaml", trust: "/etc/arch/trust.yaml", config: "/etc/arch/agent.yaml",
	}
	dir := func(xdg, fallback string) string {
		if d := getenv(xdg); filepath.IsAbs(d) { // the specification ignores relative ones
			return d
		}
		if home := getenv("HOME"); fallback != "" && filepath.IsAbs(home) {
			return filepath.Join(home, fallback)
		}
		return ""
	}
	state, config, runtime := dir("XDG_STATE_HOME", ".local/state"), dir("XDG_CONFIG_HOME", ".config"), dir("XDG_RUNTIME_DIR", "")
	if uid == 0 || getenv("STATE_DIRECTORY") != "" || state == "" || config == "" {
		return system
	}
	own := places{
		state: filepath.Join(state, "arch-node-agent"), policy: filepath.Join(config, "arch/policy.yaml"), trust: filepath.Join(config, "arch/trust.yaml"),
		config: filepath.Join(config, "arch/agent.yaml"),
	}
	own.socket = filepath.Join(own.state, "socket")
	if runtime != "" {
		own.socket = filepath.Join(runtime, "arch-node-agent/socket")
	}
	return own
}
