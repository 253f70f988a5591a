"""Hold the paper's memory (sections 3.1 to 3.4), equation by equation.

`equations` has each of them literally, and is what to read first; `contract` is what layers ask of any memory. The
other modules are what runs; `fast/` has quicker forms with equal results.

(M1) ψ_j(t) = N(t; μ̃_j, σ̃_j²), the basis
    equations.evaluate_basis, basis.GaussianBasis.evaluate
(M2) E_p[ψ_j] = N(μ; μ̃_j, σ² + σ̃_j²) with p = N(μ, σ²)
    equations.expect_basis, fast.reading.read_signal with fast.reduced_basis.ReducedBasis
(M3) F = [ψ(t_1) … ψ(t_n)], G = (F Fᵀ + λI)⁻¹ F, B = G X
    equations.ridge_operator, signal.solve_fit, fast.low_rank.factorise
(M4) first fit t_i = (i − ½)/L; refit τ·i/M, then τ + (1 − τ)·i/L; zeros in a margin beyond [0, 1]
    equations.first_grid, equations.sample_grid, equations.refit_grid, signal.make_operators
(M5) X̄(t) = Bᵀψ(t)
    equations.evaluate_signal, called as it is by sticky memories; within A of (M6) with fixed points
(M6) B ← G [X̄(s_1) … X̄(s_M); x̃_1 … x̃_L] = A B + C x̃ at fixed s, with G = [G₁ G₂], A = G₁ Ψ(s), C = G₂
    equations.update, longterm.LongTermMemory.update, signal.make_operators, fast.low_rank.LinearMap
(M7) x̃ = sigmoid(Conv1d(x)) ⊙ x
    equations.smooth, longterm.LongTermMemory.smooth, fast.convolution.convolve3
(M8) μ = sigmoid(w_μ·(K q)/√d), σ² = softplus(w_σ·(K q)/√d), K = B W_K
    equations.score_queries, equations.shape_density, equations.AttentionDensity, longterm.LongTermMemory.density,
    fast.reading.score_queries
(M9) z_h = V_hᵀ E_p[ψ], V = B W_V, heads joined and projected by W_O; Z = Z_STM + Z_LTM
    equations.read_context, longterm.LongTermMemory.read_signal, fast.reading.read_signal; contract.Memory.mix, which
    a layer asks for
(M10) KL(N(μ, σ²) ‖ N(μ0, σ0²)) = ½(σ²/σ0² − ln(σ²/σ0²) − 1), plus ½(μ − μ0)²/σ0² if μ0 is not μ
    equations.kl_to_prior, longterm.LongTermMemory.kl
(M11) share of attention in D bins by differences of the normal CDF; M sorted points by its inverse
    equations.attention_histogram, equations.sample_histogram, sticky.attention_histogram,
    longterm.LongTermMemory.observe, longterm.LongTermMemory.sample_positions
(M12) s_i = b + Σ_j W_j x_{c·i + j}; loss: mean of (attend(s) − attend(x))² (Rae et al. 2019)
    equations.compress, equations.reconstruction_loss, compressor.Compressor, compressive.CompressiveMemory

Other memories for the same place in a layer, each in a file of its own, its equation beside what runs:

(M13) w ← a w + 1, m ← m + (x − m)/w
    mean.average, mean.MeanMemory
(M14) P ← h P + b (v − a S k) kᵀ, S ← a S + P, read S q
    delta.write, delta.make_chunks, delta.write_chunks, delta.DeltaMemory
(M15) K_i ← a_i K_i + (1 − a_i) k, V_i ← a_i V_i + (1 − a_i) v, read softmax(K q/√d)ᵀ V
    slots.fill_slots, slots.SlotMemory
(M16) softmax(K q/√d)ᵀ V over the best of the last n vectors, or of slots as in (M12)
    cache.CacheMemory
(M17) p(t) ∝ exp(K(t)·q/√d), read ∫ p(t) V(t) dt
    continuous_softmax.ContinuousSoftmaxMemory
"""
