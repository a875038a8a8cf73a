;; guix repl -L guix check.scm: prints what the services and the package are, one "KEY<tab>VALUE…" a line, for guix_test.go.
(use-modules (arch packages) (arch services) (gnu) (gnu services) (gnu services shepherd) (gnu services configuration)
             (gnu system) (gnu system shadow) (guix gexp) (guix store) (guix monads) (guix derivations) (guix packages)
             (system base compile) (srfi srfi-1) (ice-9 format) (ice-9 match))

(define (say key . values)
  (format #t "~a~{\t~a~}~%" key values))

(define full
  (arch-node-configuration
   (user "node")
   (policy-file "/srv/policy.yaml")
   (trust-file "/srv/trust.yaml")
   (key-file "/srv/key")
   (listen '("0.0.0.0:7340" "[::]:7340"))
   (read? #t)
   (hosts '("node.example"))
   (ledger-policy-file "/srv/ledger.policy")
   (witness-for-file "/srv/others.policy")))

(define os (load (string-append (getcwd) "/tests/examples/node/system.scm")))
(define services (operating-system-services os))
(define example
  (service-value (find (lambda (s) (eq? (service-kind s) arch-node-service-type)) services)))

(for-each (match-lambda
            ((name config)
             (apply say (string-append "agent " name) (arch-node-agent-arguments config))
             (apply say (string-append "broker " name) (arch-runnerd-arguments config))
             (say (string-append "user " name) (arch-node-configuration-user config))
             (say (string-append "key " name) (arch-node-configuration-key-file config))))
          `(("default" ,(arch-node-configuration)) ("full" ,full) ("example" ,example)))

(apply say "fields" (map configuration-field-name arch-node-configuration-fields))

(for-each (lambda (file)
            (say "warnings" file
                 (string-join
                  (string-split (with-output-to-string
                                  (lambda ()
                                    (parameterize ((current-warning-port (current-output-port)))
                                      (compile-file file #:output-file "/tmp/compiled.go" #:warning-level 1))))
                                #\newline)
                  " ")))
          '("guix/arch/packages.scm" "guix/arch/services.scm"))

(define (folded type)
  (service-value (fold-services services #:target-type type)))

(for-each (match-lambda
            ((? user-account? account)
             (when (member (user-account-name account) '("archagent" "archrunner"))
               (say "account" (user-account-name account) (user-account-group account) (user-account-home-directory account)
                    (user-account-system? account))))
            (_ #f))
          (folded account-service-type))

(define ours
  (filter (lambda (s) (memq (car (shepherd-service-provision s)) '(arch-node-agent arch-runnerd log-rotation)))
          (shepherd-configuration-services (folded shepherd-root-service-type))))

(with-store store
  (run-with-store store
    (mlet* %store-monad ((files (mapm %store-monad (compose lower-object shepherd-service-file) ours))
                         (package (package->derivation arch "x86_64-linux" #:graft? #f))
                         (modules (lower-object go-modules))
                         (toolchain (package->derivation go-toolchain "x86_64-linux" #:graft? #f)))
      (for-each (lambda (service file)
                  (let ((name (car (shepherd-service-provision service))))
                    (apply say (format #f "requires ~a" name) (shepherd-service-requirement service))
                    (say (format #f "start ~a" name) (object->string (gexp->approximate-sexp (shepherd-service-start service))))
                    (say (format #f "service ~a" name) (derivation-file-name file))))
                ours files)
      (say "package" (package-name arch) (package-version arch) (derivation-file-name package))
      (say "toolchain" (package-version go-toolchain) (derivation-file-name toolchain))
      (match (derivation-outputs modules)
        ((("out" . output))
         (say "modules" (derivation-output-recursive? output) (derivation-output-hash-algo output)
              (string-concatenate (map (lambda (byte) (string-pad (number->string byte 16) 2 #\0))
                                       ((@ (rnrs bytevectors) bytevector->u8-list) (derivation-output-hash output)))))))
      (return #t))
    #:system "x86_64-linux"))
