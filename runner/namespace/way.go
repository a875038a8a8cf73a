package namespace

import (
	"os/exec"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// way is the way out of an execution with network access. The zero value is that of one without.
type way struct {
	gateway *egress.Gateway
	number  int // of the gateway's link in the first process
	traffic runner.Traffic
	err     error // why traffic is not known
}

// open starts a gateway and gives its link to cmd.
func (w *way) open(spec runner.Spec, options Options, cmd *exec.Cmd) error {
	if spec.Network.IsZero() {
		return nil
	}
	gateway, err := egress.Start(spec.Network, options.Egress)
	if err != nil {
		return &runner.SetupError{Act: "open network", Err: err}
	}
	w.gateway = gateway
	w.number = extraFile(cmd, gateway.Link())
	return nil
}

// started is called when the first process has the link.
func (w *way) started() {
	if w.gateway != nil {
		w.gateway.Unlink()
	}
}

// close ends the gateway and takes what it has counted.
func (w *way) close() {
	if w.gateway != nil {
		w.traffic, w.err = w.gateway.Stop()
	}
}
