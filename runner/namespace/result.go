package namespace

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"arch.network/runner"
	"arch.network/runner/egress"
)

// result makes the Result after everything is gone. failure is what ended the reading of the report.
func (e *execution) result(failure error) (runner.Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started.IsZero() && failure != nil {
		return runner.Result{}, failure // nothing ran
	}
	if err := cmp.Or(e.failed, e.talked); err != nil {
		return runner.Result{}, err
	}
	end, err := e.verdict()
	if err != nil {
		return runner.Result{}, err
	}
	if e.finished.IsZero() {
		e.finished = time.Now()
	}
	r := runner.Result{
		Reason: end.Reason, Exit: end.Exit, Signal: end.Signal, Command: end.Command, Detail: end.Detail,
		Usage:  runner.Usage{MemoryPeak: max(end.MemoryPeak, e.group.peak()), Accounting: e.accounting()},
		Engine: "native", Outputs: e.collected,
	}
	if !e.started.IsZero() {
		r.Wall = e.finished.Sub(e.started)
	}
	if state := e.cmd.ProcessState; state != nil {
		r.CPU = state.UserTime() + state.SystemTime()
	}
	e.addMeasured(&r)
	if e.meter == nil {
		r.Anomalies = e.denied.anomalies(r.Wall)
	}
	if e.way.gateway != nil {
		r.Network = &e.way.traffic
		r.Anomalies = append(r.Anomalies, egress.Refusals(e.way.traffic, r.Wall)...)
	}
	r.Confinement = e.confinement()
	return r, nil
}

// accounting names where the numbers of the Usage come from: CPU time is always what wait4(2) tells of the first process.
func (e *execution) accounting() string {
	if e.group.limitsMemory() {
		return e.group.by(memoryController) + "+rusage"
	}
	return "rusage"
}

// verdict decides how the execution ended: what the driver did beats what the commands did.
func (e *execution) verdict() (ending, error) {
	var end ending
	if e.end != nil {
		end = *e.end
	}
	switch {
	case e.group.outOfMemory():
		end.Reason, end.Exit, end.Signal = runner.ReasonOutOfMemory, 0, ""
		end.Detail = e.memoryDetail()
	case e.stop != nil:
		end.Reason, end.Exit, end.Signal, end.Detail = e.stop.Reason, 0, "", e.stop.Detail
	case end.Reason == "":
		return end, errors.New("run confinement: its first process ended without a report")
	case end.Reason == runner.ReasonExit && end.Exit != 0 && e.group.outOfProcesses():
		end.Reason, end.Exit = runner.ReasonLimit, 0
		end.Detail = fmt.Sprintf("processes: more than %d", e.spec.Limits.Processes)
	case len(e.absent) > 0:
		a := e.absent[0]
		end.Reason = runner.ReasonNotFound
		end.Detail = fmt.Sprintf("output %s: %s", e.spec.Outputs[a.Output].Name, a.Detail)
	}
	return end, nil
}

func (e *execution) memoryDetail() string {
	return fmt.Sprintf("memory: more than %d bytes", e.spec.Limits.Memory)
}

// confinement tells what was in force.
func (e *execution) confinement() runner.Confinement {
	c := runner.Confinement{Driver: "namespace", Enforced: slices.Clone(e.ready.Enforced), Missing: slices.Clone(e.ready.Missing)}
	limits := e.spec.Limits
	if limits.Memory > 0 {
		c.Enforced = append(c.Enforced, "memory:"+cmp.Or(e.group.by(memoryController), "watchdog"))
	}
	if by := e.group.by(cpuController); by != "" && limits.CPU > 0 {
		c.Enforced = append(c.Enforced, "cpu:"+by)
	} else if limits.CPU > 0 {
		c.Missing = append(c.Missing, "cpu: "+missingController)
	}
	c = e.addIO(c)
	if why := e.missingPower(); why != "" {
		c.Missing = append(c.Missing, "power: "+why)
	} else if limits.Power > 0 {
		c.Enforced = append(c.Enforced, "power:"+e.group.by(cpuController))
	}
	if by := e.group.by(devicesController); by != "" {
		c.Enforced = append(c.Enforced, "device-permissions:"+by)
	} else if limitsPermissions(e.spec.Devices) {
		c.Missing = append(c.Missing, "device-permissions: "+missingController)
	}
	if limits.Processes > 0 {
		c.Enforced = append(c.Enforced, "processes:"+e.processesBy())
	}
	if limits.Wall > 0 {
		c.Enforced = append(c.Enforced, "wall-time")
	}
	c.Enforced = append(c.Enforced, "log-size", "output-size")
	if e.way.err != nil {
		c.Missing = append(c.Missing, "network-accounting: "+e.way.err.Error())
	}
	switch {
	case e.refused != nil:
		c.Missing = append(c.Missing, "user-namespace: "+e.refused.Error())
	case e.mode == modeRoot:
		c.Missing = append(c.Missing, "user-namespace: left out by the driver's options")
	}
	slices.Sort(c.Enforced)
	slices.Sort(c.Missing)
	return c
}

// addIO tells what became of the limits of reading and writing.
func (e *execution) addIO(c runner.Confinement) runner.Confinement {
	by := e.group.by(ioController)
	limits := map[string]int64{"io-read": e.spec.Limits.IORead, "io-write": e.spec.Limits.IOWrite}
	for name, limit := range limits {
		switch {
		case limit == 0:
		case by == "":
			c.Missing = append(c.Missing, name+": "+missingController)
		case name == "io-write" && e.group.version == 1:
			c.Missing = append(c.Missing, name+": control groups of version 1 slow down direct writes alone")
		default:
			c.Enforced = append(c.Enforced, name+":"+by)
		}
	}
	return c
}

// missingController says why a limit that only a control group can keep is not kept.
const missingController = "no control group with this controller may be made here"

func (e *execution) processesBy() string {
	if by := e.group.by(pidsController); by != "" {
		return by
	}
	if e.order().MaxProcesses > 0 {
		return "rlimit"
	}
	return "watchdog"
}
