// Package validation judges what executions of a job left: whether the result holds, must be made once more to compare, or is
// held back for a person to look at. It is pure: the document, the policy and what was found come in, a verdict with its
// reasons comes out, and the same arguments give the same verdict everywhere. It runs nothing and opens nothing.
//
// What it demands of a result:
//
//   - every output that spec.expected or a pinned target names is that;
//   - as many executions as spec.replicas, or the policy's minReplicas, say agree on every output; of a job that is a function
//     of its document also on what was printed, the exit status and the gas;
//   - the same for the share of such jobs that the policy's sampleRate says, twice. Which ones those are follows from the
//     job's id, so that everybody can check that they were;
//   - no guarantee of the confinement was missing that the policy does not let be missing;
//   - the runner saw nothing odd, if the policy says quarantineOnAnomaly.
//
// Executions that disagree never win by majority: on one machine, a disagreement is a fault or a lie.
package validation
