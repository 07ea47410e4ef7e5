// Fetches the rows of the next head while the products of this one are computed.
#pragma once

#include <initializer_list>

#include "axial.h"
#include "vec.h"

namespace asycmst {
namespace {

// Rows of one head lie too far apart for the processor to see them coming, and asking for all of
// them at once would stall it. So the matrix products ask for one row every few steps. Lines go to
// the level-two cache: two heads and their scores would overflow the first.
class RowFetcher {
  public:
    RowFetcher(const AxialProblem& p, const AxialTask& task, std::int64_t element_bytes)
        : problem_(p), task_(task), element_bytes_(element_bytes) {}

    // Every operand of a forward, before its first head.
    void fetch_forward() {
        add({&problem_.q, &problem_.out}, problem_.queries);
        add({&problem_.k, &problem_.v}, problem_.keys);
    }

    // Every operand of a backward, before its first head.
    void fetch_backward() {
        add({&problem_.grad, &problem_.q}, problem_.queries);
        add({&problem_.k, &problem_.v}, problem_.keys);
        if (problem_.part != Part::kFirst) {
            add({&problem_.dq}, problem_.queries);
            add({&problem_.dk, &problem_.dv}, problem_.keys);
        }
    }

    // Called at the start of each head: from here on, steps fetch the head that this thread most
    // likely computes next, unless it would push out what is being computed with.
    void begin(std::int64_t head) {
        while (part_ != end_) {  // what the products of the last head were too short for
            step();
        }
        const bool last_head = head + 1 == task_.head_end;
        const bool last_group = task_.group + 1 == problem_.groups;
        if (bytes_ > kLargestHead || (last_head && last_group)) {
            return;
        }
        const std::int64_t group = task_.group + (last_head ? 1 : 0);
        const std::int64_t next = last_head ? task_.head_begin : head + 1;
        for (int i = 0; i < count_; ++i) {
            const Operand& operand = *operands_[i];
            const std::int64_t offset =
                task_.batch * operand.batch + group * operand.group + next * operand.head;
            parts_[i] = {operand.data + offset * element_bytes_, operand.row * element_bytes_,
                         rows_[i]};
        }
        part_ = parts_;
        end_ = parts_ + count_;
    }

    ASYCMST_INLINE void step() {
        if (part_ == end_) {
            return;
        }
        const std::int64_t bytes = problem_.channels * element_bytes_;
        for (std::int64_t byte = 0; byte < bytes; byte += 64) {
            __builtin_prefetch(part_->row + byte, 0, 2);
        }
        part_->row += part_->stride;
        if (--part_->rows == 0) {
            ++part_;
        }
    }

  private:
    struct Stretch {
        const char* row;
        std::int64_t stride, rows;
    };

    // Each operand has `rows` rows a head.
    void add(std::initializer_list<const Operand*> operands, std::int64_t rows) {
        for (const Operand* operand : operands) {
            operands_[count_] = operand;
            rows_[count_++] = rows;
            bytes_ += rows * problem_.channels * element_bytes_;
        }
    }

    static constexpr int kMaxOperands = 7;
    static constexpr std::int64_t kLargestHead = std::int64_t{384} << 10;

    const AxialProblem& problem_;
    const AxialTask& task_;
    std::int64_t element_bytes_;
    std::int64_t bytes_ = 0;
    int count_ = 0;
    const Operand* operands_[kMaxOperands];
    std::int64_t rows_[kMaxOperands];
    Stretch parts_[kMaxOperands];
    Stretch* part_ = parts_;
    Stretch* end_ = parts_;
};

}  // namespace
}  // namespace asycmst
