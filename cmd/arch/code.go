package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"syscall"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/attest"
	"arch.network/attest/ledger"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner"
)

// code is a kind of error, as `arch explain CODE` tells of it. Its name never changes its meaning.
type code struct {
	Name    string `json:"code"`
	Status  int    `json:"exitStatus"`
	Meaning string `json:"meaning"` // when it comes up
	Cure    string `json:"cure"`    // what to do; the hint of an error that knows none itself

	is func(error) bool // nil: the errors of that status that are of no other kind
}

// is reports whether an error of type E is in the chain.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// caused returns a function that reports whether target is in the chain.
func caused(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// verdict returns a function that reports whether a verification failed with one of these classes.
func verdict(classes ...attest.Class) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*attest.VerifyError](err)
		return ok && slices.Contains(classes, e.Class)
	}
}

// ours are the kinds of errors that arise here. The first that fits is an error's kind: those that say more stand before those that say
// less, and what the operating system refused stands last. An error that fits none has the code of its exit status.
func ours() []code {
	return []code{
		{"not-reproducible", exitNotReproducible, "Built again, or by somebody else, it came out different.", "see what differs: arch diff; arch log shows what the builds wrote", func(err error) bool {
			return is[*builder.NotReproducibleError](err) || is[*derivation.NotReproducibleError](err) || verdict(attest.ClassDiffers)(err)
		}},
		{"step-failed", exitExecution, "A step of a build ended with an error.", "read its last lines, or all of them: arch log", func(err error) bool {
			return is[*builder.BuildError](err) || is[*derivation.BuildError](err)
		}},
		{"store-changed", exitVerification, "What lies in the store of Nix or Guix is not what its database or its derivation says.", "repair it: nix-store --verify --check-contents --repair, or guix gc --verify=contents,repair", func(err error) bool {
			return is[*derivation.ChangedError](err) || is[*drv.PathError](err)
		}},
		{"job-failed", exitExecution, "A job ran, and ended with an error, over a limit, or without an output that it must leave.", "see what it may do and use: arch run --explain FILE", is[*JobError]},
		{"false-claim", exitVerification, "A claim contradicts itself: what it says was built cannot come of what it says was done.", "do not use it; ask whoever signed it", is[*builder.ClaimError]},
		{"inputs-missing", exitInputsMissing, "Something that a document pins is not to be had.", "check the network, and that the address still has it; what is in the store is not fetched again", is[*source.MissingError]},
		{"not-the-pin", exitError, "What was fetched is not what the document pins.", "whoever changed it knows why; arch pin FILE writes the pins of what is there now", is[*source.PinError]},
		{"trust-not-updated", exitDenied, "A new trust root was refused: those who must sign it did not, or it is not the next version.", "see who must sign: arch trust show", is[*quorum.UpdateError]},
		{"too-few-witnesses", exitDenied, "Too few witnesses have cosigned a checkpoint for the policy by which it is judged.", "wait for them, or name witnesses that are up in the policy", is[*ledger.QuorumError]},
		{"ledger-fork", exitVerification, "Two checkpoints of one ledger contradict each other: history was changed.", "keep both as evidence, and trust nothing that is only in one of them", is[*ledger.ForkError]},
		{"policy-denied", exitDenied, "It is genuine, but the policy, or the quorum of the trust root, does not let it pass.", "see what is asked for: arch policy check, arch trust show", verdict(attest.ClassPolicy)},
		{"nothing-to-verify", exitVerification, "There is no statement about the artifact at all, so there was nothing to check.", "name its receipts: --receipts", verdict(attest.ClassNothing)},
		{"verification-failed", exitVerification, "A check of a verification failed: a signature, a digest, a reference.", "do not use it; each check is told above", is[*attest.VerifyError]},
		{"cannot-confine", exitError, "This machine lacks what a confinement needs, and nothing runs unconfined.", "see what is missing and what mends it: arch doctor", is[*runner.SetupError]},
		{"other-platform", exitError, "A build is of a platform that this machine is not.", "build it on such a machine", is[*builder.PlatformError]},
		{"store-damaged", exitError, "Something in the store is not what it was when it was put there.", "arch store verify --repair moves all that is damaged out of the way; it is fetched or built again", func(err error) bool {
			return is[*store.CorruptError](err) || is[*builder.DamagedError](err)
		}},
		{"not-pinned", exitError, "A document refers to something by a name that can come to mean something else.", "arch pin FILE replaces it by what it is now", is[*manifest.UnpinnedError]},
		{"bad-document", exitError, "A document is not written as its kind demands.", "arch explain KIND tells its fields; arch schema KIND lets an editor check it", func(err error) bool {
			return is[*manifest.SyntaxError](err) || is[manifest.ErrorList](err)
		}},
		{"unreachable", exitUnreachable, "The node cannot be reached, or what answers is none.", "see whether it runs: systemctl status arch-node-agent; name it with --agent or ARCH_AGENT", func(err error) bool {
			return is[*client.ConnectError](err) || is[*client.AnswerError](err)
		}},
		{"network", exitError, "An address could not be reached, or what it answered was cut short.", "check the address and the network", func(err error) bool { return is[*url.Error](err) || is[*net.OpError](err) }}, // they may wrap what comes next
		{"no-such-file", exitError, "A file or directory that is needed is not there.", "check the path; a relative one begins at the current directory", caused(fs.ErrNotExist)},
		{"file-exists", exitError, "Something is already where a new file is to be.", "name a path where nothing is yet; what is there was not changed", caused(fs.ErrExist)},
		{"no-permission", exitError, "The operating system does not let this user do it.", "check whose it is with `ls -ld`, and run arch as a user who may", caused(fs.ErrPermission)},
		{"disk-full", exitError, "There is no space left on the device.", "free some space: `arch store gc` removes what nothing needs any more", caused(syscall.ENOSPC)},
		{"read-only", exitError, "The file system cannot be written to.", "name a place that can be written to", caused(syscall.EROFS)},
		{"no-directory", exitError, "Something in the middle of a path is a file.", "check the path: something in the middle of it is a file", caused(syscall.ENOTDIR)},

		{"error", exitError, "Something failed that no other code says better. The message says what.", "read the message; with --json it is one line that a program can read", nil},
		{"usage", exitUsage, "The command line, the environment or the configuration file is wrong. Nothing was done.", "--help tells how the command is used", nil},
		{"refused", exitDenied, "A policy does not allow it, or not enough of those who must agree did.", "the message names them; arch policy check and arch trust show tell what is asked for", nil},
		{"wrong", exitVerification, "Something is not what it was signed, pinned or recorded as.", "do not use it; the message says what to compare it with", nil},
		{"differs", exitNotReproducible, "Two things that were compared, or should have come out the same, differ.", "see where: arch diff", nil},
		{"failed", exitExecution, "A step or a job ended with an error.", "read what it wrote: arch log, arch logs ID", nil},
		{"not-had", exitInputsMissing, "Something that is needed is not to be had.", "bring it to where the message says it was looked for", nil},
		{"no-node", exitUnreachable, "No node answered.", "see whether it runs: systemctl status arch-node-agent", nil},
		{"timeout", exitTimeout, "It took longer than --timeout. What was begun goes on.", "see how it stands: arch job show ID", nil},
		{"interrupted", exitInterrupted, "It was told to stop, and stopped in order. Nothing half-written is left.", "start it again", nil},
	}
}

// classify tells the kind of an error, with its exit status.
func classify(ctx context.Context, err error) code {
	e, known := errors.AsType[*statusError](err)
	if !known && interrupted(ctx) { // whatever it broke
		return ofStatus(exitInterrupted)
	}
	if c, ok := ofNode(err); ok && !known {
		return c
	}
	for _, c := range ours() {
		if c.is != nil && c.is(err) && (!known || c.Status == e.status) {
			return c
		}
	}
	if known {
		return ofStatus(e.status)
	}
	return ofStatus(exitError)
}

// ofStatus is the kind of errors of which no more is known than their exit status.
func ofStatus(status int) code {
	codes := ours()
	i := slices.IndexFunc(codes, func(c code) bool { return c.is == nil && c.Status == status })
	if i < 0 {
		return code{Name: "error", Status: status}
	}
	return codes[i]
}

// ofNode is the kind of an error that a node answered with.
func ofNode(err error) (code, bool) {
	p := wire.Problem{}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		p = e.Problem
	} else if p = wire.ProblemOf(err); p.Code == wire.CodeInternal {
		return code{}, false
	}
	c := code{Name: p.Code, Status: exitError, Cure: p.Hint, is: func(error) bool { return true }}
	if is[*agent.DeniedError](err) || p.Status == 403 {
		c.Status = exitDenied
	}
	return c, true
}

// explained is what `arch explain` tells of a code: ours, or one that a node's API answers with.
type explained struct {
	Name    string `json:"code"`
	Status  int    `json:"status,omitempty"` // of HTTP
	Exit    int    `json:"exitStatus"`
	Title   string `json:"title,omitempty"`
	Meaning string `json:"meaning"`
	Cure    string `json:"cure"`
}

func (explained) kind() string { return "ErrorCode" }

// findCode finds a code by its name.
func findCode(name string) (explained, bool) {
	if c, ok := wire.Find(name); ok {
		exit := exitError
		if c.Status == 403 {
			exit = exitDenied
		}
		return explained{Name: c.Name, Status: c.Status, Exit: exit, Title: c.Title, Meaning: c.Meaning, Cure: c.Cure}, true
	}
	for _, c := range ours() {
		if c.Name == name {
			return explained{Name: c.Name, Exit: c.Status, Meaning: c.Meaning, Cure: c.Cure}, true
		}
	}
	return explained{}, false
}

// hint is what to do about an error that does not tell it itself. The codes that only repeat the exit status have no advice that fits every error.
func (c code) hint() string {
	if c.is == nil && c.Status != exitUsage {
		return ""
	}
	return c.Cure
}

// codeNames lists every code there is.
func codeNames() []string {
	var names []string
	for _, c := range ours() {
		names = append(names, c.Name)
	}
	for _, c := range wire.Codes() {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}
