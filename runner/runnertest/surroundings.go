package runnertest

import (
	"net"
	"strings"
)

// surroundings are the cases of what a command finds around it.
func surroundings() []testCase {
	return []testCase{
		{"identity is the Spec's and everything else is bare", func(h *harness) {
			spec := h.spec("describe")
			spec.Hostname, spec.UID, spec.GID, spec.Umask, spec.CPUs = "builder", 2000, 3000, 0o027, 1
			h.says(spec, described(map[string]string{
				"host": "builder", "ids": "2000 2000 3000 3000", "umask": "0027", "cpus": "1",
			})...)
		}},
		{"identity has defaults", func(h *harness) {
			spec := h.spec("describe")
			spec.CPUs = 1
			h.says(spec, described(map[string]string{"cpus": "1"})...)
		}},
		{"two runs see the same", func(h *harness) {
			spec := h.spec("describe")
			_, first := h.run(spec)
			_, second := h.run(spec)
			h.equal(second, first)
		}},
		{"no network", noNetwork},
		{"no abstract socket of the host", noAbstractSocket},
		{"confinement is reported", func(h *harness) {
			result, _ := h.run(h.spec("exit", "0"))
			if result.Confinement.Driver == "" || len(result.Confinement.Enforced) == 0 {
				h.Errorf("got %+v", result.Confinement)
			}
			if result.CPU <= 0 || result.Wall <= 0 {
				h.Errorf("CPU time %v and wall time %v must be positive", result.CPU, result.Wall)
			}
		}},
	}
}

// described is what the probe says of itself, but for what changed tells otherwise.
func described(changed map[string]string) []string {
	facts := [][2]string{
		{"host", "localhost"},
		{"dir", "/build"},
		{"ids", "1000 1000 100 100"},
		{"groups", "true"},
		{"umask", "0022"},
		{"process", "300"},
		{"session leader", "true"},
		{"cpus", "1"},
		{"descriptors", "0=/dev/null 1=pipe 2=pipe"},
		{"processes", "first self"},
		{"capabilities", "0000000000000000"},
		{"no new privileges", "1"},
		{"seccomp", "2"},
		{"signals ignored or blocked", "0000000000000000 0000000000000000"},
		{"core, files", "0 4096"},
		{"group", "/"},
	}
	var list []string
	for _, f := range facts {
		if v, ok := changed[f[0]]; ok {
			f[1] = v
		}
		list = append(list, f[0]+": "+f[1])
	}
	return list
}

func noNetwork(h *harness) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Skip("cannot run here: no loopback interface: ", err)
	}
	defer listener.Close()
	h.says(h.spec("connect", listener.Addr().String(), "192.0.2.1:80", "[2001:db8::1]:80"),
		"address 0: ENETUNREACH", "address 1: ENETUNREACH", "address 2: EADDRNOTAVAIL", "interfaces up: 0 ok")
}

func noAbstractSocket(h *harness) {
	name := "arch-runnertest-" + strings.ReplaceAll(h.Name(), "/", "-")
	listener, err := net.Listen("unix", "@"+name)
	if err != nil {
		h.Skip("cannot run here: no abstract sockets: ", err)
	}
	defer listener.Close()
	spec := h.spec("abstract", name)
	h.says(spec, "abstract socket: ECONNREFUSED")
}
