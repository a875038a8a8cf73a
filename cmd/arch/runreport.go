package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/runner"
	"arch.network/runner/job"
)

// runResult is what --json shows of an execution.
type runResult struct {
	Name         string             `json:"name"`
	ID           digest.SHA256      `json:"id"` // of the document
	AllowedBy    string             `json:"allowedBy"`
	Reason       runner.Reason      `json:"reason"`
	Exit         int                `json:"exit"`
	Signal       string             `json:"signal,omitempty"`
	Detail       string             `json:"detail,omitempty"`
	Engine       string             `json:"engine"`
	Outputs      []jobOutputResult  `json:"outputs"` // empty unless the job succeeded
	Stdout       printedResult      `json:"stdout"`
	Stderr       printedResult      `json:"stderr"`
	Usage        usageResult        `json:"usage"`
	Confinement  runner.Confinement `json:"confinement"`
	Anomalies    []runner.Anomaly   `json:"anomalies,omitempty"`
	Reproducible bool               `json:"reproducible"`     // every honest machine gets the same
	Result       *digest.SHA256     `json:"result,omitempty"` // id of the job-result statement
	Run          digest.SHA256      `json:"run"`              // id of the job-run statement
	Receipt      string             `json:"receipt,omitempty"`
	Signer       string             `json:"signer,omitempty"`
}

func (runResult) kind() string { return "RunResult" }

type jobOutputResult struct {
	Name string         `json:"name"`
	Path string         `json:"path"`
	File *digest.SHA256 `json:"sha256,omitempty"`
	NAR  digest.SHA256  `json:"nar"`

	Published string `json:"published,omitempty"` // as what it can be pulled: HOST/REPOSITORY[:TAG]@sha256:…
}

// published notes as what outputs were pushed.
func (res *runResult) published(pushed []attest.ResourceDescriptor) {
	for _, p := range pushed {
		for i := range res.Outputs {
			if res.Outputs[i].Name == p.Name {
				res.Outputs[i].Published = strings.TrimPrefix(p.URI, "oci:") + "@sha256:" + p.Digest["sha256"]
			}
		}
	}
}

type printedResult struct {
	Size   int64         `json:"size"` // bytes
	Digest digest.SHA256 `json:"sha256"`
}

// usageResult has times in seconds and sizes in bytes; what was not measured is left out.
type usageResult struct {
	Wall       float64         `json:"wallSeconds"`
	CPU        float64         `json:"cpuSeconds"`
	MemoryPeak int64           `json:"memoryPeak,omitempty"`
	IORead     int64           `json:"ioRead,omitempty"`
	IOWrite    int64           `json:"ioWrite,omitempty"`
	Gas        uint64          `json:"gas,omitempty"`
	Joules     float64         `json:"joules,omitempty"`
	EnergyFrom string          `json:"energySource,omitempty"`
	Network    *runner.Traffic `json:"network,omitempty"`
	Accounting string          `json:"accounting"`
}

func (e *execution) describe(o job.Outcome) runResult {
	r := o.Result
	res := runResult{
		Name: e.target.doc.Metadata.Name, ID: e.target.id, AllowedBy: e.target.allowedBy,
		Reason: r.Reason, Exit: r.Exit, Signal: r.Signal, Detail: r.Detail, Engine: r.Engine,
		Outputs: []jobOutputResult{}, Stdout: printedResult{o.Stdout.Size, o.Stdout.Digest}, Stderr: printedResult{o.Stderr.Size, o.Stderr.Digest},
		Usage: usageResult{
			Wall: r.Wall.Seconds(), CPU: r.CPU.Seconds(), MemoryPeak: r.MemoryPeak, IORead: r.IORead, IOWrite: r.IOWrite,
			Gas: r.Gas, Network: r.Network, Accounting: r.Accounting,
		},
		Confinement: r.Confinement, Anomalies: r.Anomalies, Reproducible: job.Deterministic(e.target.doc),
	}
	if r.Energy != nil {
		res.Usage.Joules, res.Usage.EnergyFrom = r.Energy.Joules, r.Energy.Source
	}
	return res
}

func (e *execution) describeOutputs(outputs []attest.JobOutput) []jobOutputResult {
	list := []jobOutputResult{}
	for _, o := range outputs {
		out := jobOutputResult{Name: o.Name, Path: filepath.Join(e.options.out, o.Name), NAR: o.NAR}
		if !o.File.IsZero() {
			out.File = &o.File
		}
		list = append(list, out)
	}
	return list
}

// identify names the statements that the result stands for.
func (res *runResult) identify(result, run *attest.Statement) error {
	if result != nil {
		id, err := result.ID()
		if err != nil {
			return err
		}
		res.Result = &id
	}
	id, err := run.ID()
	res.Run = id
	return err
}

// attest signs the statements and writes them beside the outputs.
func (e *execution) attest(ctx context.Context, result, run *attest.Statement, signer identity.Signer, res *runResult) error {
	receipt := &attest.Receipt{}
	for _, stmt := range []*attest.Statement{result, run} {
		if stmt == nil {
			continue
		}
		env, err := stmt.Sign(ctx, signer)
		if err != nil {
			return fmt.Errorf("sign receipt: %w", err)
		}
		receipt.Add(env)
	}
	if err := makeDirectory(e.options.out); err != nil {
		return err
	}
	path := filepath.Join(e.options.out, e.target.doc.Metadata.Name+".run.intoto.jsonl")
	if err := writeReceipt(path, receipt); err != nil {
		return err
	}
	res.Receipt, res.Signer = path, signer.Public().String()
	return nil
}

// tell shows the outcome: as the result with --json, else on stderr, since stdout is the job's.
func (a *app) tell(res runResult) error {
	if a.json {
		return a.print(res, nil)
	}
	if a.quiet {
		return nil
	}
	s := &screen{color: a.colored(a.err)}
	res.text(s)
	_, err := a.err.Write(s.bytes())
	return err
}

func (res runResult) text(s *screen) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(s, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(s, "%s: ", res.Name)
	switch {
	case res.Reason == runner.ReasonExit && res.Exit == 0:
		s.paint("32", "done")
	case res.Reason == runner.ReasonExit:
		s.paint("31", fmt.Sprintf("ended with status %d", res.Exit))
	default:
		s.paint("31", string(res.Reason))
	}
	fmt.Fprintln(s)
	for _, o := range res.Outputs {
		d := o.NAR
		if o.File != nil {
			d = *o.File
		}
		line("output", "%s %s", o.Path, d)
		if o.Published != "" {
			line("pushed", "%s", o.Published)
		}
	}
	line("used", "%s", res.Usage)
	line("confined by", "%s: %s", res.Confinement.Driver, strings.Join(res.Confinement.Enforced, ", "))
	for _, m := range res.Confinement.Missing {
		line("", "not enforced: %s", m)
	}
	for _, a := range res.Anomalies {
		line("anomaly", "%s after %s: %s", a.Kind, took(a.At), a.Evidence)
	}
	line("engine", "%s", res.Engine)
	line("allowed", "%s", res.AllowedBy)
	line("job", "%s", res.ID)
	if res.Result != nil {
		how := ""
		if res.Reproducible {
			how = ", the same on every machine"
		}
		line("result", "%s%s", res.Result, how)
	}
	if res.Receipt != "" {
		line("receipt", "%s", res.Receipt)
		line("signed by", "%s", res.Signer)
	}
}

// String tells the usage in one line.
func (u usageResult) String() string {
	parts := []string{fmt.Sprintf("%.3g s, %.3g s of processor time", u.Wall, u.CPU)}
	if u.MemoryPeak > 0 {
		parts = append(parts, size(u.MemoryPeak)+" of memory")
	}
	if u.Gas > 0 {
		parts = append(parts, fmt.Sprintf("%d gas", u.Gas))
	}
	if u.EnergyFrom != "" {
		parts = append(parts, fmt.Sprintf("%.3g J (%s)", u.Joules, u.EnergyFrom))
	}
	if n := u.Network; n != nil {
		parts = append(parts, fmt.Sprintf("%s sent, %s received, %d connections, %d refused", size(n.Sent), size(n.Received), n.Connections, n.Refused))
	}
	return strings.Join(parts, ", ") + " (" + u.Accounting + ")"
}
